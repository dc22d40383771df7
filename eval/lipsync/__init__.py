"""Lip synchronisation after Wav2Lip (Prajwal et al., ACM MM 2020, arXiv 2008.10010), with a checkpoint's encoder."""
