"""A stream for people: what posterior samples are, say, and say on average, by name."""

from pathlib import Path

from torch import Tensor

from gped_nas.errors import StreamError
from gped_nas.models.base import Params
from gped_nas.stream.reader import Stream
from gped_nas.targets.base import TARGETS
from gped_nas.targets.expectations import expect, stream_expectations


class TeacherStream:
    """A stream for people: parameters, predictions and expectations by name.

    Args:
        stream: the opened stream.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    @property
    def views(self) -> list[str]:
        """Names of the views there are predictions at."""
        return self.stream.views

    @property
    def weight(self) -> Tensor:
        """Weights of the posterior samples, (S,), summing to 1."""
        return self.stream.weight_S

    @property
    def predictions(self) -> Tensor:
        """What each sample predicts at the first view, or at the imported inputs: (S, N, G).

        Log-probabilities of C classes, nats; of a regression, mean and variance of the label in its
        normalized unit.
        """
        if self.stream.has_weights:
            return self.stream.predictions(self._first_view())

        _, predictions_SMG = self.stream.imported()
        return predictions_SMG

    @property
    def log_prob(self) -> Tensor:
        """Log-probabilities at the first view, or at the imported inputs: (S, N, C), nats.

        Raises:
            StreamError: the stream is of a regression.
        """
        if self.stream.key.likelihood_model.prediction != "log_prob":
            raise StreamError(
                f"{self.stream.folder}: a regression has no classes; read 'predictions' instead"
            )
        return self.predictions

    def _first_view(self) -> str:
        if not self.views:
            raise StreamError(
                f"{self.stream.folder}: holds no predictions yet; run `gped-search teacher build "
                "SPACE`"
            )
        return self.views[0]

    def params(self, index: int) -> Params:
        """Named parameters of one posterior sample."""
        return self.stream.params(index)

    def expectation(self, target: str, view: str | None = None) -> Tensor:
        """A mean or derived target's value at the inputs of a view: (N, G).

        Args:
            target: its name.
            view: the view's name; by default the first one, or the imported inputs.

        Raises:
            RegistryError: unknown target.
            ConfigError: a target of kind quantile.
            StreamError: unknown view.
        """
        if view is None and not self.stream.has_weights:
            average = expect(TARGETS[target], self.predictions.double(), self.weight).float()
        else:
            view = view or self._first_view()
            average = stream_expectations(self.stream, [target], view)[target]
        return TARGETS[target].shown(average)


def load_stream(path: str | Path) -> TeacherStream:
    """The stream in a folder, all of its posterior samples.

    Raises:
        StreamError: missing or corrupt.
    """
    return TeacherStream(Stream(Path(path)))
