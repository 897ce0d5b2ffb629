/**
 * HAST's five lines with what we add behind its own options; tabs and blanks are as it prints them.
 */
export const USAGE = `\
usage: hastctl create [-d] [-c config] [-e extentsize] [-k keepdirty]
\t\t[-m mediasize] [-n node] [-f] [--layout aligned|hast]
\t\t[--contents-equal] name ...
       hastctl role [-d] [-c config] [-n node] [-f] [--if-unused] \
<init | primary | secondary> all | name ...
       hastctl list [-d] [-c config] [-n node] [--json] [all | name ...]
       hastctl status [-d] [-c config] [-n node] [--json] [--watch]
\t\t[--interval seconds] [all | name ...]
       hastctl dump [-d] [-c config] [-n node] [--json] [all | name ...]
       hastctl why [-d] [-c config] [-n node] [--json] all | name ...
       hastctl discard [-d] [-c config] [-n node] name ...
       hastctl reload [-d] [-c config] [-n node] [--json]
`;
