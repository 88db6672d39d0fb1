"""Records -> numbers: pure functions, one documented function for each metric.

:mod:`~workloom.metrics.summary` has the numbers of a whole run, :mod:`~workloom.metrics.show` puts them on a
terminal; :mod:`~workloom.metrics.calls`, :mod:`~workloom.metrics.chunks`, :mod:`~workloom.metrics.sessions` and
:mod:`~workloom.metrics.server` say what each of them means.
"""
