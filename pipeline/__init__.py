"""Multilingual product search on ESCI, a module a stage.

sample → clean → embed → index → retrieve → evaluate → report; `demo` makes the default source.
"""
