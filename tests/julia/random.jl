using PhotoFlux: derived_rng

draw(args...) = rand(derived_rng(args...), UInt64)

@test draw(1, "order", 2) == draw(1, "order", 2)
@test allunique([draw(1, "order", 2), draw(2, "order", 2), draw(1, "dropout", 2), draw(1, "order", 3), draw(1, "order", 2, 1)])
# Numbers that are written one after the other must not run together.
@test draw(1, "order", 1, 23) != draw(1, "order", 12, 3)
@test draw(-1, "order") != draw(1, "order")
