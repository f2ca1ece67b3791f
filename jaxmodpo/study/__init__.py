"""The blinded human study: which replies people compare, the web application in which they do so,
and what their answers say about models and judges. Nothing here imports JAX.
"""
