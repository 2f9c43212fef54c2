"""Speed, memory and latency of this project beside the real Celery 5.7 and Huey, in one run on one machine."""
