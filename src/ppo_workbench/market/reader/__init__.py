"""The one reader: tables and streams of a user's bars, by the same code and conventions.

`layout` finds separator and header, `columns` the columns, `stamps` the time, `table` makes
`Bars` of a whole file, `rows` reads the same rows one at a time, `plausible` looks for what is
formally right and yet wrong.  `Conventions` is what a stream has in common with the file.
"""
