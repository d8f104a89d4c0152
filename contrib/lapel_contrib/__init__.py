"""Drivers shipped with lapel, one package a technology."""
