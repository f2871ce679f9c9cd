"""Keeps third parties off the network: everything here must run with DNS blocked."""

import tldextract
from tldextract import tldextract as module


def use_packaged_suffix_list() -> None:
    """tldextract looks two hosts up on first use, unless its shared extractor is told that there are none.

    Presidio's e-mail recognizer calls that shared extractor.
    """
    module.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
