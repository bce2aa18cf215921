"""Packaging of timesformer; settings of the tools are in pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
INIT = (ROOT / "timesformer" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'__version__ = "(.+)"', INIT).group(1)

VIZ = ["matplotlib>=3.10.7"]
EMBED = [*VIZ, "scikit-learn>=1.5", "threadpoolctl>=3.1"]
HUB = ["huggingface_hub>=0.30"]
TORCHCODEC = ["torchcodec>=0.12"]  # earlier ones turn some files otherwise; needs torch 2.11
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]
OPENVINO = ["openvino>=2026.0", "nncf>=3.0"]  # nncf: int8
PARQUET = ["pyarrow>=18.0"]
RAY = [*PARQUET, "ray[data]>=2.40"]
MTEB = ["mteb[video]>=2.26"]
REMOTE = ["fsspec>=2024.2", "aiohttp>=3.9"]  # http; s3fs brings s3, gcsfs gs
CLUSTER = ["submitit>=1.5.4"]  # earlier ones want pkg_resources, which setuptools has no more
EIGHTBIT = ["bitsandbytes>=0.50"]
# Tried with gradio 5.40 and 6.31. Not in TEST nor in dev: it wants an older pillow than
# constraints.txt has, so it is for an environment of its own.
SERVE = [*VIZ, "gradio>=5.40"]
TEST = [
    *CLUSTER,
    *EMBED,
    *HUB,
    *PARQUET,
    *TORCHCODEC,
    "pytest>=8.2",
    "pytest-timeout>=2.3.1",
    "pytest-xdist>=3.6",
    "transformers>=4.50",
]


class BuildWithRecipes(build_py):
    """Puts the recipes of configs/ into the package, where `timesformer.config.recipes` looks.

    An editable install needs no copies: there the package finds configs/ beside itself.
    """

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "timesformer" / "configs"
            shutil.rmtree(target, ignore_errors=True)  # an earlier build's may have other recipes
            for source, copy in self.recipes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(copy))

    def recipes(self):
        """Pairs of a recipe and its place in the package."""
        target = Path(self.build_lib) / "timesformer"
        return [
            (path, target / path.relative_to(ROOT))
            for path in sorted(ROOT.glob("configs/**/*.yaml"))
        ]

    def get_outputs(self, include_bytecode=True):
        """Paths of all files that are built."""
        copies = [] if self.editable_mode else [str(copy) for _, copy in self.recipes()]
        return [*super().get_outputs(include_bytecode), *copies]


setup(
    name="timesformer",
    version=VERSION,
    description="TimeSformer, space-time attention for video, rebuilt from the paper in PyTorch",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The timesformer authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["timesformer", "timesformer.*"]),
    package_data={"timesformer": ["py.typed", "datasets/labels/*.txt", "studies/*.csv"]},
    cmdclass={"build_py": BuildWithRecipes},
    entry_points={"console_scripts": ["timesformer = timesformer.__main__:main"]},
    install_requires=[
        "torch>=2.10",
        "torchvision>=0.25",
        "timm>=1.0.12",
        "av>=17.0",
        "einops>=0.8",
        "fvcore>=0.1.5.post20221221",
        "numpy>=1.26",
        "pillow>=10.0",
        "pyyaml>=6.0",
        "safetensors>=0.4.3",
        "simplejson>=3.17",
        "tabulate>=0.10",
        "tensorboard>=2.16.2",
        "tqdm>=4.65",
        "yacs>=0.1.8",
    ],
    extras_require={
        "viz": VIZ,
        "embed": EMBED,
        "hub": HUB,
        "mteb": MTEB,
        "onnx": ONNX,
        "openvino": OPENVINO,
        "parquet": PARQUET,
        "ray": RAY,
        "remote": REMOTE,
        "cluster": CLUSTER,
        "eightbit": EIGHTBIT,
        "serve": SERVE,
        "torchcodec": TORCHCODEC,
        "test": TEST,
        "dev": [
            *TEST,
            *ONNX,
            "build>=1.2",
            "mypy>=1.10",
            "pre-commit>=3.5",
            "ruff>=0.15",
            "setuptools>=77",
            "types-PyYAML",
            "types-simplejson",
            "types-tabulate",
            "types-tqdm",
        ],
    },
    keywords="video transformer, action recognition, space-time attention, TimeSformer, PyTorch",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
