"""Since when what conformance finds is so, as far as the history of diffusers tells."""

from __future__ import annotations

# What is found, the first release that had it, and where it came in; read from the history of the
# source, not by running the old releases.
SINCE: tuple[tuple[str, str, str], ...] = (
    ("LMS started in the middle leaves noise: its order follows from the place in the schedule",
     "0.2.0", "PR 185, which added it; reported in issue 5630; mended here for runs"),
    ("PNDM started in the middle leaves noise: its doubled timestep is left out",
     "0.2.0", "PR 186, which doubles it; mended here for runs"),
    ("UniPC with bh1 gives NaN: its last sigma is 0", "0.28.0", "PR 7517, which made it 0"),
    ("DPM++ ends in a step of first order, the one to sigma 0", "0.26.0",
     "PR 6477, which made the last sigma 0; before, noise was left"),
    ("UniPC ends in a step of first order, the one to sigma 0", "0.28.0",
     "PR 7517, which made the last sigma 0"),
    ("Timesteps beyond the last one of the training: 1000 'leading' steps with offset 1", "0.4.0",
     "PR 479, which added the offset to DDIM and PNDM; issue 10003; the other classes since PR "
     "3947 (0.18.0)"),
    ("DEIS with flow sigmas is of first order and wrong from the middle: its last sigma is there "
     "twice, so that the last step goes nowhere", "0.32.0", "PR 9982, which added these sigmas"),
    ("Many steps of a beta schedule raise IndexError or AssertionError: whole timesteps repeat",
     "0.31.0", "PR 9538, which added these sigmas; the same of Karras sigmas in issue 12771"),
    ("LCM refuses more steps than its training's", "0.24.0", "PR 5788, as an error of its own"),
    ("TCD refuses more steps than its training's", "0.27.0", "PR 7174, which added it"),
    ("All other findings", "unknown", ""),
)


def since_table() -> list[str]:
    """The lines of a Markdown table."""
    return ["| finding | since | where it came in |", "|---|---|---|",
            *(f"| {' | '.join(entry)} |" for entry in SINCE)]
