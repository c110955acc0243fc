"""What reads an exported posterior without this package, put together by ``export.posterior``.

``posterior.py`` is the loader. It calls ``decode``, which is of the codec: the line that imports it
is replaced by the text of the codec's own file here.
"""
