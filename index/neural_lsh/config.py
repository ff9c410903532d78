"""Settings that a learned partition is built with."""

from __future__ import annotations

from dataclasses import dataclass

from vecdb.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class NeuralLshConfig:
    """They are saved beside the index.

    bins: parts of the space; 0: as many as leave about 256 vectors a bin, between 16 and 1,024. hidden, layers: width and number
    of the network's hidden layers. soft_k: neighbours whose bins a vector is to tell (the paper's released code: 50). graph_k:
    of the graph that is cut (there: 10). epochs: passes over the vectors. probes: bins that a search looks into unless it says
    otherwise. seed: of all that is drawn.
    """

    bins: int = 0
    hidden: int = 256
    layers: int = 2
    soft_k: int = 50
    graph_k: int = 10
    epochs: int = 12
    probes: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("bins", 0, 65_536),
            ("hidden", 1, 4_096),
            ("layers", 0, 8),
            ("soft_k", 1, 1_000),
            ("graph_k", 1, 100),
            ("epochs", 1, 1_000),
            ("probes", 1, 65_536),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidInput(f"{name} is {value}; it must lie between {least} and {most:,}")
        if self.bins == 1:
            raise InvalidInput("bins is 1; a partition has at least two, or 0 for a number that suits the vectors")
        if not 0 <= self.seed < 2**63:
            raise InvalidInput(f"seed is {self.seed}; it must lie between 0 and 2**63 - 1")

    def bins_for(self, count: int) -> int:
        """How many bins so many vectors get: never more than there are vectors, and at least one."""
        wanted = self.bins or min(max(count // 256, 16), 1_024)
        return max(1, min(wanted, count))
