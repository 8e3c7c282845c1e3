# A network of your own, from Python or the command line: photoflux train examples/my_model.jl:build scans/
# It is called with (width, height, channels) of an image and how many classes there are; pixels are 0 to 255.
using PhotoFlux.Flux

function build((width, height, channels), classes)
    block(n) = SkipConnection(Chain(Conv((3, 3), n => n; pad=1, bias=false), BatchNorm(n, relu), Conv((3, 3), n => n; pad=1, bias=false), BatchNorm(n)), +)
    return Chain(
        PhotoFlux.Rescale(1 / 255),
        Conv((3, 3), channels => 16; stride=2, pad=1, bias=false),
        BatchNorm(16, relu),
        block(16),
        relu,
        Conv((3, 3), 16 => 32; stride=2, pad=1, bias=false),
        BatchNorm(32, relu),
        GlobalMeanPool(),
        Flux.flatten,
        Dropout(0.2),
        Dense(32 => (classes == 2 ? 1 : classes)),
    )
end
