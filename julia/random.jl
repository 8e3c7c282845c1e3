"""
    derived_rng(seed, purpose, parts...)

Return the random generator of one purpose: its state is the SHA-256 of the seed, the purpose and the parts.

A generator is never carried from one epoch to the next, so that a resumed run draws what an uninterrupted one draws.

# Arguments
- `seed::Integer`: the run's seed.
- `purpose::AbstractString`: what the numbers are for: `"weights"`, `"order"`, `"dropout"`, `"augment"`, …
- `parts::Integer...`: the epoch, the image, … as the purpose needs.

# Returns
- `Xoshiro`

# Examples
```jldoctest
julia> using PhotoFlux: derived_rng

julia> rand(derived_rng(1, "order", 2)) == rand(derived_rng(1, "order", 2)) != rand(derived_rng(1, "order", 3))
true
```
"""
function derived_rng(seed::Integer, purpose::AbstractString, parts::Integer...)
    digest = sha256(string(seed, '/', purpose, map(part -> "/$part", parts)...))
    return Xoshiro(ltoh.(reinterpret(UInt64, digest))...)
end
