"""Addresses and keys of crypto currencies; a checksum decides wherever the currency has one."""

from .checksums import base58check, bech32, check
from .context import Context
from .recognizer import Pattern, Recognizer

_EDGE, _STOP = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_BASE58 = "[1-9A-HJ-NP-Za-km-z]"


def crypto_wallets() -> Recognizer:
    """The recognizer of CRYPTO."""
    base58, bech = check("base58check", base58check), check("bech32", bech32)
    return Recognizer(
        "CryptoRecognizer",
        "CRYPTO",
        [
            Pattern.of("Bitcoin", rf"{_EDGE}[13]{_BASE58}{{25,34}}{_STOP}", 0.5, check=base58),
            Pattern.of("Litecoin, Dogecoin, Dash, Zcash", rf"{_EDGE}(?:[LMDX]|t1|t3){_BASE58}{{25,34}}{_STOP}", 0.5, check=base58),
            Pattern.of("Tron", rf"{_EDGE}T{_BASE58}{{33}}{_STOP}", 0.5, check=base58),
            Pattern.of("bech32", rf"{_EDGE}(?:bc1|tb1|ltc1|addr1|cosmos1|osmo1|BC1)[A-Za-z0-9]{{25,110}}{_STOP}", 0.5, check=bech),
            Pattern.of("extended key", rf"{_EDGE}[xyz](?:pub|prv){_BASE58}{{100,112}}{_STOP}", 0.9, check=base58),
            Pattern.of("Ethereum", rf"{_EDGE}0x[0-9a-fA-F]{{40}}{_STOP}", 0.8),
            Pattern.of("Ripple", rf"{_EDGE}r{_BASE58}{{24,34}}{_STOP}", 0.3, needs_context=True),
            Pattern.of("Monero", rf"{_EDGE}[48][0-9AB]{_BASE58}{{93}}{_STOP}", 0.6),
            Pattern.of("Solana", rf"{_EDGE}{_BASE58}{{32,44}}{_STOP}", 0.2, needs_context=True),
            Pattern.of("WIF private key", rf"{_EDGE}(?:5{_BASE58}{{50}}|[KL]{_BASE58}{{51}}){_STOP}", 0.6, check=base58),
        ],
        context=Context(
            ["bitcoin", "btc", "wallet", "crypto", "ethereum", "eth", "xrp", "ripple", "solana", "sol", "litecoin", "ltc", "doge", "usdt", "usdc", "tron", "monero", "xmr", "ledger", "metamask"]
        ),
    )  # fmt: skip
