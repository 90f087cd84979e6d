"""The public names in one import, for notebooks: `from stpt2imc.all import *`. Library code never imports this."""
from . import __version__
from .grid import Chunk, ChunkGrid, InputError, halo, parse_address
from .section import (ChannelView, FolderImage, ImageSource, Marker, Panel, Section, StackedImage, TiffImage, check_sections, data_folder, find_sections,
                      open_image, parse_marker, register_format)
from .phantom import CELL_TYPES, STPT_CHANNELS, Phantom
from .scale import CountScale, ReportScale, Scale, histogram, histogram_mean, percentile, scale_from_dict
from .store import ChunkPair, Picture, Store, StoredSection, convert, open_store
from .data import ChunkDataset, FlipTurn, HeldOutSections, IMCImage, RandomChunks, STPTImage, ScaleCounts, chunk_dataloaders, fit_scales
from .unet import UNet
from .loss import MSE
from .train import ImputationModel, as_model, learner, load_model, save_model, seed_everything, unet_learner
from .impute import Imputed, impute, open_imputed
from .score import Moments, Ridge, box_means, explained, fit_ridge, score, summary, training_mean, worst
from .plot import chunk_mse, composite, plot_losses, plot_overview, plot_reconstruction, plot_scores
from .cli import demo, show_versions

__all__ = [name for name in dir() if not name.startswith("_")] + ["__version__"]
