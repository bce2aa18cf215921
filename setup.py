"""Packaging of timesformer; settings of the tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = (ROOT / "timesformer" / "__init__.py").read_text()
VERSION = re.search(r'__version__ = "(.+)"', INIT).group(1)

VIZ = ["matplotlib>=3.8"]
HUB = ["huggingface_hub>=0.30"]
TORCHCODEC = ["torchcodec>=0.10"]
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]

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
    package_data={"timesformer": ["py.typed", "datasets/labels/*.txt"]},
    install_requires=[
        "torch>=2.10",
        "torchvision>=0.25",
        "timm>=1.0.9",
        "av>=14.0",
        "einops>=0.8",
        "fvcore>=0.1.5.post20221221",
        "numpy>=1.26",
        "pillow>=10.0",
        "pyyaml>=6.0",
        "safetensors>=0.4.3",
        "simplejson>=3.17",
        "tabulate>=0.9",
        "tensorboard>=2.16",
        "tqdm>=4.65",
        "yacs>=0.1.8",
    ],
    extras_require={
        "viz": VIZ,
        "hub": HUB,
        "onnx": ONNX,
        "torchcodec": TORCHCODEC,
        "dev": [
            *TORCHCODEC,
            *VIZ,
            *HUB,
            "build>=1.2",
            "mypy>=1.10",
            "pre-commit>=3.5",
            "pytest>=8.2",
            "pytest-timeout>=2.3",
            "ruff>=0.15",
            "setuptools>=77",
            "transformers>=4.50",
            "types-PyYAML",
            "types-simplejson",
            "types-tabulate",
            "types-tqdm",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
