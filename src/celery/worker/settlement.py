"""Domain. What an outcome means for the delivery that it came from: acknowledge, reject or give back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.outcome import Failure, Rejected, Success

if TYPE_CHECKING:
    from celery.outcome import Outcome
    from celery.worker.admission import TaskPolicy

__all__ = ["ACK", "DONE", "REJECT", "REQUEUE", "lost_disposition", "run_disposition", "timeout_disposition"]

#: The words of `ports.Settled.disposition`.
ACK, DONE, REJECT, REQUEUE = "ack", "done", "reject", "requeue"


def run_disposition(outcome: Outcome, policy: TaskPolicy, *, acknowledged: bool) -> str:
    """How to settle a delivery whose run came to `outcome` (`[task.35]`, `[task.38]`, `[task.40]`).

    A task that does not acknowledge late has given up its message when it began, so it cannot ask for it back; what
    could not be run at all is still kept as a dead letter as long as the broker has it.
    """
    if acknowledged:
        return DONE
    if type(outcome) is Success:
        return ACK
    if isinstance(outcome, Rejected):
        if outcome.requeue:
            return REQUEUE if policy.acks_late else ACK
        return REJECT
    if isinstance(outcome, Failure) and policy.acks_late and not (outcome.acknowledge and policy.acks_on_failure):
        return REJECT
    return ACK


def timeout_disposition(policy: TaskPolicy, *, acknowledged: bool) -> str:
    """How to settle a delivery whose run was ended for its hard limit (`[task.38]`)."""
    if acknowledged:
        return DONE
    return REQUEUE if policy.acks_late and not policy.acks_on_timeout else ACK


def lost_disposition(policy: TaskPolicy, *, acknowledged: bool) -> str:
    """How to settle a delivery whose process died while it ran (`[task.36]`, `[task.38]`)."""
    if acknowledged:
        return DONE
    if not policy.acks_late:
        return ACK
    if policy.reject_on_worker_lost:
        return REQUEUE
    return ACK if policy.acks_on_failure else REJECT
