"""How many people of a site must say yes to a study, and what may run without anybody's."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ApprovalRule(BaseModel):
    """The section `approval` of site.yaml.

    Attributes:
        approvers: How many different people must approve a study; its author counts for none.
        rule: `none`: nothing runs that nobody approved. `signer`: what the federation's coordinator signed runs without
            anybody's word, within the limits below, until somebody rejects or withdraws it.
        rounds: With a rule: rounds of one study for which it holds; no limit if none.
        days: With a rule: days for which it holds, from when the study was first seen; no limit if none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    approvers: Literal[1, 2] = 1
    rule: Literal["none", "signer"] = "none"
    rounds: int | None = Field(None, ge=1)
    days: float | None = Field(None, gt=0, le=36500)

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.rule == "signer" and self.approvers == 2:
            raise ValueError("rule: signer lets studies run without anybody's word, approvers: 2 wants two: choose one")
        if self.rule == "none" and (self.rounds or self.days):
            raise ValueError("rounds and days limit what a rule lets run, and there is no rule; whoever approves a "
                             "study says for how long")  # fmt: skip
        return self
