"""The stage `examine.saes`: does an SAE fit its model?"""
