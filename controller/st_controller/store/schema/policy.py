"""Which policy is in force: rules of resources, approvals, quotas, prices."""

from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Id, Table


class PolicyVersion(Table):
    """The policy in force; its one row is missing as long as nobody has made any.

    Everything that changes what may be submitted writes a new ``version`` in its transaction, one
    that was never used before: so a process that has read the policy of a version knows it.
    """

    __tablename__ = "policy_versions"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(Id)
