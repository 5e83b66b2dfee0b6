"""Multilingual product search on ESCI: one folder per stage.

sample → clean → embed → index → retrieve → evaluate → report; `demo` makes the default source.
"""
