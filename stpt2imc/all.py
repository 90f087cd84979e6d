"""The public names in one import, for notebooks: `from stpt2imc.all import *`. Library code never imports this."""
from . import __version__
from .grid import Chunk, ChunkGrid, InputError, halo, parse_address
from .panel import Marker, Panel, UrlPath, as_path, channel_label, panel_from_dict, panel_rows, parse_marker
from .image import ChannelView, FolderImage, ImageSource, StackedImage, TiffImage
from .formats import McdImage, ReportImage, TxtImage, ZarrImage, acquisitions, open_image, register_format
from .section import Section, check_sections, compare_panels, data_folder, find_sections
from .phantom import CELL_TYPES, STPT_CHANNELS, Phantom
from .align import Fit, FittedImage, PairReport, check_pair, choose_fit, fit_from_dict
from .scale import CountScale, GuardedScale, ReportScale, Scale, SectionScale, histogram, histogram_digest, histogram_mean, load_scales, percentile, save_scales, scale_from_dict
from .clean import CleanedImage, HotPixels, MissingTiles, Shading, Spillover, Stripes, clean, read_spillover, step_from_dict
from .store import ChunkPair, Store, StoredSection, convert, open_store
from .data import ChunkDataset, FlipTurn, HeldOutSections, IMCImage, MarkerSampler, RandomChunks, STPTImage, ScaleCounts, TissueSampler, chunk_dataloaders, fit_scales
from .augment import AddStripes, ChannelGain, DropChannels, Elastic, TileGain, channel_groups
from .unet import UNet, adapt, describe, fit_shortcut
from .render import render_points
from .pointset import PointSetDecoder, PointSetGen, layer_table
from .points import PointSet, chamfer, nucleus_centres
from .loss import BCE, LOSSES, MAE, MSE, MultiScaleMSE, NegativeBinomial, Poisson, SSIMMix, Weighted, loss_from_dict
from .shift import ShiftRobust
from .callbacks import EMA, Checkpoint, CSVLog, KeepBest, NaNGuard
from .train import Ensemble, ImputationModel, as_model, learner, load_model, register_model, save_model, seed_everything, unet_learner
from .recipe import Settings, epochs_of, recommended, settings_for, settings_table, train_recommended
from .pointlearn import AutocastCPU, ChamferToNuclei, point_set, pointset_learner
from .tune import SPACE, plot_tuned, tune
from .impute import Imputed, impute, open_imputed
from .export import Exported, export_ome_tiff, export_ome_zarr, provenance
from .baselines import BASELINES, CONTROLS, OWN, Boost, Lookup, Ridge, blurred_features, fit_baselines, fit_ridge, training_mean
from .score import METRICS, Moments, box_means, explained, measure, ms_ssim, over_seeds, score, summary, thin, worst
from .card import VERDICTS, ReportCard, cell_scores, coverage, registration, report_card, seam, segment_nuclei, tile_difference
from .tasks import TASKS, baseline_table, benchmark_baselines, control_scores, cut_field, open_task, planted_ranks
from .models import MonaiUNet, benchmark_models, models_table
from .ablation import VARIANTS, ablate_unet
from .importance import channel_importance, colours_and_depths, plot_importance
from .picture import COLOURS, Picture, card, composite, distinct_channels, scale_bar, style, styled, thumbnail
from .plot import chunk_mse, report_scale, plot_comparison, plot_losses, plot_markers, plot_overview, plot_pair, plot_reconstruction, plot_scores, plot_section
from .explore import ChunkView, ViewState, bench_explore, explore_table
from .widget import ChunkExplorer
from .figures import calibration, paired, plot_calibration, plot_points, plot_scales, plot_training
from .bench import bench_convert, bench_io, bench_loader, bench_render, convert_table, drop_cache, io_table, plot_io, plot_render, render_table
from .cli import demo, show_versions

__all__ = [name for name in dir() if not name.startswith("_")] + ["__version__"]
