"""Strategies: what is asked of the sites, and what is made of their replies. One file each.

To add one: write a file here and add a line to the table in `common/names.py`. What it adds to the messages, or leaves
at the sites, stands in the table of `common/traits.py`, which both ends read.
"""
