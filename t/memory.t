#!/usr/bin/env perl

# Tests for a worker that finds no more memory: a request for which there is none
# is refused in words, and the worker goes on.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

use constant SERVERS => 10_000;
use constant LINES => 20_000;

# Megabytes that the worker may take beyond what it has.
use constant STEPS => (0 .. 4, 6, 8, 12, 17, 24, 34, 60);

# Clients that do not read, and what a worker may take for them, in megabytes.
use constant STALLED => 50;
use constant MOST => 220;

plan(skip_all => 'no prlimit') if system('prlimit --version >/dev/null 2>&1');

my $t = Test::Nginx->new(timeout => 240)->has(qw/module http upstream_zone/)->plan(10);

my $counts = $t->has_version('1.27.3');

# As many servers as the older nginx has places for.
my $MANY = $counts ? 4_000 : 250;
my $port = port(8081);

$t->write_file_expand('nginx.conf', <<'CONF',
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream_control_zone 64m;
    client_max_body_size 0;
    client_body_buffer_size 64k;

    upstream big {
        zone big 16m;
%%SERVERS%%
    }

    upstream many {
        zone many 16m;
        upstream_capacity 300;
        server 127.0.0.1:8081;
    }

    upstream small {
        zone small 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        # What the system buffers hides what nginx does.
        listen 127.0.0.1:8080 sndbuf=32k;

        location = /status {
            upstream_status;
        }

        location = /control {
            upstream_control;
        }

        location = /return {
            return 200 ok;
        }
    }
}
CONF
	SERVERS => join "\n", map {
		sprintf '        server 127.%d.%d.%d:%d;', 1 + $_ % 7, $_ / 250,
			1 + $_ % 250, $port
	} 0 .. SERVERS - 1);

# nginx says so of its own allocations.
$t->allow_log(qr/\[(?:emerg|alert|crit)\].*(?:malloc|memory|memalign|Cannot allocate)/);
$t->allow_log(qr/sendfile|writev|pwrite/);
$t->run();
$t->leak_keys('/status', 8080, pages => { many => 2000 });

my @WORKERS = $t->workers();

# Without chunks, which take the client longer than nginx.
my %OLD = (version => '1.0', timeout => 20);

my %REQUESTS = (
	status => sub { http_get('/status?format=json', %OLD) },
	metrics => sub { http_get('/status?format=prometheus', %OLD) },
	list => sub { http_get('/control?upstream=big', %OLD) },
	'list in JSON' => sub { http_get('/control?upstream=big&format=json', %OLD) },
	change => sub {
		http_get('/control?upstream=small&server=127.0.0.1:'
			. port(8082) . '&weight=' . int(1 + rand 9));
	},
	everywhere => sub { http_get("/control?upstream=*&server=127.0.0.1:$port&up=") },
	'a list of many' => sub { replace('small', LINES, 'dry_run=&force=') },
	'JSON of many' =>
		sub { replace('small', LINES, 'dry_run=&force=&format=json', 1) },
	'other servers' => sub { replace('many', $MANY, 'force=') },
	'one server' => sub { replace('many', 1, 'force=') },
);

ok(!(grep { $_->status() != 200 } map { $_->() } values %REQUESTS),
	'all is well with memory');

my %seen;

for my $more (STEPS) {
	limit($more);

	for my $name (sort keys %REQUESTS) {
		my $reply = $REQUESTS{$name}->();
		my $what = $reply->status() || $reply->error();
		$what = 'without words' if $what eq 503 && $reply->body() !~ /no memory/;
		$seen{$what}++;
	}

	limit(undef);
}

diag(explain(\%seen)) if $ENV{TEST_NGINX_VERBOSE};
cmp_ok($seen{503} // 0, '>', 8, 'requests without memory are refused');
cmp_ok($seen{200} // 0, '>', 40, 'others are answered');
ok(!$seen{'without words'}, 'refusals have words');
is_deeply([ $t->workers() ], \@WORKERS, 'the worker lives');
ok(!(grep { $_->status() != 200 } map { $_->() } values %REQUESTS),
	'all is well again');

stalled('little memory', 40);
stalled('a limit', undef);

# With little memory the worker runs out of it; without that its own limit holds.
sub stalled ($what, $more) {
	limit($more);

	my $before = size();
	my @handles = map {
		http_start(%OLD, uri => '/status?upstream=big&format=json')
	} 1 .. STALLED;

	# It has looked at all of them when it answers this.
	http_get('/return');
	my $grown = size() - $before;

	my %seen;
	$seen{ http_finish($_, timeout => 30)->status() }++ for @handles;
	limit(undef);

	diag(explain([ $grown, \%seen ])) if $ENV{TEST_NGINX_VERBOSE};
	cmp_ok($grown, '<', ($more // MOST) + 1, "$what: what stalled readers take");
	ok(($seen{200} // 0) > 1 && ($seen{503} // 0) > 1,
		"$what: some are refused: " . join ' ', %seen);
}

# Lets the worker take so many megabytes more, or as many as it likes.
sub limit ($more) {
	my $as = defined $more ? (size() + $more) << 20 : 'unlimited';
	system('prlimit', '--pid', ($t->workers())[0], "--as=$as:") == 0
		or die "prlimit failed\n";
}

# Address space of the worker, in megabytes.
sub size () {
	my ($pid) = $t->workers();
	open my $fh, '<', "/proc/$pid/status" or die "worker $pid: $!\n";
	my ($kb) = join('', <$fh>) =~ /^VmSize:\s+(\d+)/m;

	return int $kb / 1024 + 1;
}

sub replace ($upstream, $n, $args, $json = 0) {
	state %lists;
	my $list = $lists{"$n/$json"} //= do {
		my @servers = map {
			sprintf '10.%d.%d.%d:80', $_ / 65_536, $_ / 256 % 256, $_ % 256;
		} 1 .. $n;
		$json
			? '[' . join(',', map { qq({"server":"$_"}) } @servers) . ']'
			: join '', map { "server $_;\n" } @servers;
	};

	return http_post("/control?upstream=$upstream&replace=&$args", $list,
		timeout => 20, headers => { 'Content-Type' =>
			$json ? 'application/json' : 'text/plain' });
}
