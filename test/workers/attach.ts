import * as pagewright from 'pagewright';

console.log(Object.keys(pagewright).length);
