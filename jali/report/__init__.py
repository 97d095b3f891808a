"""Tables, figures and the HTML report; made from records only, never from models."""
