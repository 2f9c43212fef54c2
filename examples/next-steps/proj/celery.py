from celery import Celery

app = Celery(
    "proj",
    broker="amqp://",
    backend="rpc://",
    include=["proj.tasks"],
)

# Optional: further settings, all of them described in the reference.
app.conf.update(
    result_expires=3600,  # seconds
)

if __name__ == "__main__":
    app.start()
