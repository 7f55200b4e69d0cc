"""Owns a request from ``submit`` to its last response, and knows time, but neither bytes nor HTTP.

What protocols call is :mod:`.engine`. One version takes requests in :mod:`.deployment` and answers
them in :mod:`.answering`; :mod:`.job` is one such request. :mod:`.queue`, :mod:`.batcher` and
:mod:`.queue_policy` say what runs next, :mod:`.instances` and :mod:`.executor` run it. Ensembles
are :mod:`.pipeline`, :mod:`.plan` and :mod:`.flow`; sequences :mod:`.sequence_deployment` and
:mod:`.sequencer`; calls that are made later :mod:`.tasks` and :mod:`.notices`.
"""
