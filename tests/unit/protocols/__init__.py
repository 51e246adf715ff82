"""Tests of protocols/."""
