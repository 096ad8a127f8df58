"""Claims about networks, one in each file that ends with `main = claim.command(CLAIM)`.

`python -m experiments` lists them. The other files are what claims are made of and done by:

    claim, plan, flags       what a claim is, its runs, and its command line
    sweep, jobs              runs that are missing, one after another or several at a time
    network, results, clean  the network, the scores and the clean error of a finished run
    rows, rates, twins       samples for tests, the best of several rates, plain and residual twins
    report, census           the report of a claim; what the census of networks measures
    all, listing, index      every claim, and the index of their verdicts
    fingerprint, untested    what a verdict was computed by; what no command tests
    search                   random draws from the ranges of a config file
"""

from resnet_jax.run.interrupt import end_silently

# First of all: from here on Ctrl-C ends a command without a traceback while imports still run.
end_silently(__name__)
