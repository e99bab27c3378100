"""Sample photos in the public domain; README.md beside them names their sources."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""The folder of the photos."""

SINGLE = ("astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg")
"""Photos of different things."""

GROUP = ("chelsea.jpg", "chelsea-mirrored.jpg", "chelsea-close.jpg")
"""A photo and two sections of it, which share a cat."""
