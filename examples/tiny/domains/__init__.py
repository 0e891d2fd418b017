"""The four domains of the demo: what can be asked, the right answer, and who wrote it."""

from . import contracts, npc, support, wallet_risk

DOMAINS = {
    "wallet-risk": wallet_risk.build,
    "contracts": contracts.build,
    "npc": npc.build,
    "support": support.build,
}
