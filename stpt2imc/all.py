"""The public names in one import, for notebooks: `from stpt2imc.all import *`. Library code never imports this."""
from .grid import *
