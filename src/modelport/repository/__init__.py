"""Knows which models exist and which of their versions are live; brings runtimes up and down.

:mod:`.sources` says what a TARGET is, :mod:`.layout` and :mod:`.reading` read directories and
configurations, :mod:`.loading` brings one version up. :mod:`.model` keeps what is known of a model,
:mod:`.rollout` has its versions come and go, and :mod:`.repository` says which models that is done
to. What is decided without waiting is :mod:`.lifecycle`, :mod:`.polling` and :mod:`.versions`.
"""
