from minialex.api.net import TrainedNet as TrainedNet
from minialex.api.net import load as load
from minialex.api.run import TrainingRun as TrainingRun
from minialex.api.run import load_recipe as load_recipe
from minialex.api.run import train as train
from minialex.course import checks as check
from minialex.engine.opening import new_session as new_session
from minialex.errors import MinialexError as MinialexError
from minialex.network import models as networks

from . import data as data

__version__: str
__all__ = [
    "MinialexError",
    "TrainedNet",
    "TrainingRun",
    "__version__",
    "check",
    "data",
    "load",
    "load_recipe",
    "networks",
    "new_session",
    "train",
]
