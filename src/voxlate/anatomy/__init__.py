"""Made-up anatomy: phantoms, label maps, sequences and drawn contrasts. A seed draws heads, equations their modalities.

Nothing here reads a scan's file, knows a model, or is named by another wing than `commands`.
"""
