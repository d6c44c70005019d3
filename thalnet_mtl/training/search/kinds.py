"""The kinds of candidates of a search; without torch, for checks of a configuration."""

REUSING = ("probe", "bottom", "top", "finetune")  # kinds that reuse the path of an earlier task
KINDS = (*REUSING, "alone", "all")
