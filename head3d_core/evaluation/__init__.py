"""Rows of the tables: samples, measures, records, and what they say."""
