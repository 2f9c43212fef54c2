"""Public names and behaviours of Celery, as its users meet them."""
