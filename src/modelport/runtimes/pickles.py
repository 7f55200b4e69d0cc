"""What is said about files that can run any code while they are read."""

__all__ = ["PICKLE_SUFFIXES", "pickle_refusal"]

PICKLE_SUFFIXES = (".joblib", ".pkl", ".pickle")


def pickle_refusal(filename: str) -> str:
    """The text for a model file that is a pickle, where the operator has not allowed them."""
    return (
        f"'{filename}' is a pickle, which can run any code while it is read, and is refused; save "
        "the model with skops (skops.io.dump(model, 'model.skops')), or export it to ONNX; for "
        "pickles that nobody but you could have written there is --allow-pickle-models"
    )
