"""Other people's tools beside which fastreg is measured, each set up as its documentation says."""
