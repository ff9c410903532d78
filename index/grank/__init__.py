"""GRank: recommending by generating and then ranking, without a structure between (Sun et al., WWW 2026).

histories.py  what users took, as flat arrays; windows of it to learn from
config.py     the model's and the training's settings
network.py    a trained model as flat arrays, and its forward pass in NumPy
search.py     exact search of user vectors over all items (CPU or GPU), and the ranker on what was found
learning.py   training (PyTorch, only then): forward.py the model, losses.py its losses
"""

from vecdb.index.grank.config import GRankConfig, Recipe
from vecdb.index.grank.histories import Histories
from vecdb.index.grank.learning import Epoch, learn
from vecdb.index.grank.network import Network
from vecdb.index.grank.search import GRank, Recommended

__all__ = ["Epoch", "GRank", "GRankConfig", "Histories", "Network", "Recipe", "Recommended", "learn"]
