"""The model that commands use unless another is named: it lies in the repository and runs on any CPU."""

DEFAULT_MODEL = "gotozero-mini"
