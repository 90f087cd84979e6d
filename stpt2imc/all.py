"""The public names in one import, for notebooks: `from stpt2imc.all import *`. Library code never imports this."""
from . import __version__
from .grid import Chunk, ChunkGrid, InputError, halo, parse_address
from .panel import Marker, Panel, UrlPath, as_path, channel_label, panel_from_dict, panel_rows, parse_marker
from .image import ChannelView, FolderImage, ImageSource, StackedImage, TiffImage
from .formats import McdImage, ReportImage, TxtImage, ZarrImage, acquisitions, open_image, register_format
from .section import Section, check_sections, compare_panels, data_folder, find_sections
from .phantom import CELL_TYPES, STPT_CHANNELS, Phantom
from .align import Fit, FittedImage, PairReport, check_pair, choose_fit, fit_from_dict
from .scale import CountScale, ReportScale, Scale, histogram, histogram_digest, histogram_mean, load_scales, percentile, save_scales, scale_from_dict
from .clean import CleanedImage, HotPixels, MissingTiles, Shading, Spillover, Stripes, clean, read_spillover, step_from_dict
from .store import ChunkPair, Picture, Store, StoredSection, convert, open_store
from .data import ChunkDataset, FlipTurn, HeldOutSections, IMCImage, RandomChunks, STPTImage, ScaleCounts, chunk_dataloaders, fit_scales
from .unet import UNet
from .loss import MSE
from .train import ImputationModel, as_model, learner, load_model, save_model, seed_everything, unet_learner
from .impute import Imputed, impute, open_imputed
from .baselines import BASELINES, CONTROLS, Boost, Lookup, Ridge, blurred_features, fit_baselines, fit_ridge, training_mean
from .score import METRICS, Moments, box_means, explained, measure, ms_ssim, over_seeds, score, summary, thin, worst
from .card import VERDICTS, ReportCard, cell_scores, coverage, registration, report_card, seam, segment_nuclei, tile_difference
from .tasks import TASKS, baseline_table, benchmark_baselines, cut_field, open_task
from .plot import chunk_mse, composite, plot_losses, plot_overview, plot_reconstruction, plot_scores
from .bench import bench_convert, bench_io, bench_loader, convert_table, drop_cache, io_table, plot_io
from .cli import demo, show_versions

__all__ = [name for name in dir() if not name.startswith("_")] + ["__version__"]
