# A network of your own, from Python or the command line: photoflux train examples/my_model.jl:build scans/
# It is called with (width, height, channels) of an image and how many classes there are; pixels are 0 to 255.
using PhotoFlux.Flux

function build((width, height, channels), classes)
    return Chain(
        PhotoFlux.Rescale(1 / 255),
        Conv((3, 3), channels => 16; stride=2, pad=1, bias=false),
        BatchNorm(16, relu),
        SkipConnection(Chain(Conv((3, 3), 16 => 16; pad=1), BatchNorm(16)), +),
        relu,
        GlobalMeanPool(),
        Flux.flatten,
        Dropout(0.2),
        Dense(16 => (classes == 2 ? 1 : classes)),
    )
end
