"""What runs inside the sandbox while tasks are made: standard library only, imported by nothing outside it.

The builder ships this package as files and feeds it problems; it runs the reference solution and every mutant in
forked children and reports what each test said, as JSON. Everything it runs was written by us or by the source of
the problems; the answers of models never come here (they are graded where expected values stay outside the jail).
"""
