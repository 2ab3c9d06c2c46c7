"""The quality gate: what is wrong with a case or a site, said with file and remedy. Pure functions, one idea per file.

`check_case` looks at a case as it was read; `check_kept` at the small statistics (`summary.summarise`) that stay
beside its arrays, so that a second run reads no scan; `check_site` compares the cases of a site by those statistics.
"""
