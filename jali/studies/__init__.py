"""Studies: one module per table or figure of a paper; its name on the command line is the file's, with ``-`` for ``_``.

A module exports ``STUDY``, an instance of :class:`jali.studies.base.Study`. Modules without one (the frame, helpers)
are not studies.
"""
