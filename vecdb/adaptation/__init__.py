"""A collection's own small correction of query vectors, learned from its documents without labels.

pseudo   queries made of a text              mining   triples: query, its document, documents that only one list takes for it
maps     the map itself, and how it is fitted   adapting   all of it, gated by held-out documents
kept     the map that searches use           export   the same triples as a file, to fine-tune a whole encoder with
"""
