"""log p(y) in closed form or by quadrature."""
